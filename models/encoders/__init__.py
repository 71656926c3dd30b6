"""Visual and text towers."""
