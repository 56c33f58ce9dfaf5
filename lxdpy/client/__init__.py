"""The API's other end: for the command line, for tests, and for one member calling another."""
