"""ibstore: capture once, ask for ever.

Training writes what every layer said, epoch by epoch, into a Zarr store; every question about information
in the network is asked afterwards.
"""

__version__ = "0.1.0"
