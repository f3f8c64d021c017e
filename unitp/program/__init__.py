"""What each rank does: instructions, how a plan is lowered to them, and what checks them."""
