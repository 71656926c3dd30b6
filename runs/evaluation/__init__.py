"""From weights to numbers: fixed episodes, stored features, results."""
