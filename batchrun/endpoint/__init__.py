"""The endpoint: the one room that opens connections and reads what comes back."""
