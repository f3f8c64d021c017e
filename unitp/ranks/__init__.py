"""The processes of a session: how they start, stay under watch, and end without a trace."""
