"""What was served last, kept on disk: a control plane that starts again serves it before it has read anything."""
