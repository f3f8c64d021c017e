"""Why a plan is as it is, what else it could have chosen, and how two plans differ."""
