"""The vocabulary: frozen values and protocols.  Standard library only, no input or output."""
