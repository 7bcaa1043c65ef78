"""Where text comes from: files here and elsewhere, datasets of the Hugging Face hub, and the default corpus.

Everything becomes a stream of documents (``base``): ``files`` says what is in a file of each format, ``places`` where files lie
and how they are opened, ``hub`` and ``demo`` are the sources that are no files.
"""

from scaling.sources.base import Advance, Document, Source, SourceError
from scaling.sources.demo import DemoSource
from scaling.sources.files import FileSource
from scaling.sources.hub import HubSource

__all__ = ["Advance", "DemoSource", "Document", "FileSource", "HubSource", "Source", "SourceError"]
