"""What each `flipnet` command does once its options are parsed; `flipnet.cli` parses and calls."""
