"""Pure functions from judgements to a preference dataset: policies, margins, checks, splits, card."""
