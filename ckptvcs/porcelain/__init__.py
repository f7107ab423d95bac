"""One module per verb: look, plan, act, report."""
