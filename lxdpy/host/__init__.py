"""The only code that touches the kernel and starts programs. It knows no Raft and no HTTP."""
