"""The session as one plain PyTorch script: small functions that write code, a topic a file."""
