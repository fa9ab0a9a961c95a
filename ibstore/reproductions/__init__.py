"""The literature, redone: a short declarative file each (see `ibstore.cli.reproduce`)."""
