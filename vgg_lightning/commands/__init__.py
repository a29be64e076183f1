"""The verbs beyond Trainer's, one a file; each has `main(args) -> exit code`."""
