"""Skills for other controllers."""

from pathlib import Path

BUNDLES = Path(__file__).parent / "bundles"  # trained ones that ship with the library, by the name of their environment
