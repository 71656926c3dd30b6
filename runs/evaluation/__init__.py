"""Turn weights into numbers: fixed episodes, stored features, results."""
