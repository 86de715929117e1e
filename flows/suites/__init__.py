"""Published suites: MT-Bench, AlpacaEval, Arena-Hard, IFEval and lm-evaluation-harness. Start at `flow.benchmark`."""
