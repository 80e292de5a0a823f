"""From YAML text to a checked Spec; `vqcc.spec.load` is the way in."""
