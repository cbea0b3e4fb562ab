"""affgen: what emotional voice conversion, singing synthesis and symbolic music have in common.

An emotion is one object (:class:`affgen.emotion.Emotion`) and every generator obeys it. Importing this package loads
nothing heavy; each module imports what it needs when it is used.
"""

__version__ = "0.1.0"
