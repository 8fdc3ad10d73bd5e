"""One run of the user's function, followed operator by operator."""
