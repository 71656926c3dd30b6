"""Write own actions and their model as a bundle that runs without torch, and prove that it gives the same numbers."""
