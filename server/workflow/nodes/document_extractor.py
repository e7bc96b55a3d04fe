"""Document extractor: files to text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from server.workflow.node import NodeError, NodeRun, Result, Task, Work
from server.workflow.reading import Reader
from server.workflow.services import ServiceFailed
from server.workflow.values import File
from server.workflow.variables import MISSING, Selector

__all__ = ["DocumentExtractor"]

_ERROR: Final = "DocumentExtractorError"
_MOST_BYTES: Final = 64 * 1024 * 1024


class DocumentExtractor(Task):
    """Its output `text` is a text for a file, an array of texts for an array of files."""

    type: ClassVar[str] = "document-extractor"
    work: ClassVar[Work] = "cpu"

    def read(self, data: Reader) -> None:
        """Takes variable_selector."""
        self.selector = data.selector("variable_selector")

    def reads(self) -> Iterable[Selector]:
        """The files."""
        return [self.selector] if self.selector else []

    async def execute(self, run: NodeRun) -> Result:
        """Raises `NodeError`: no file there, or one that is not read."""
        inputs = {"variable_selector": list(self.selector)}
        value = run.variables.get(self.selector)
        if value is MISSING:
            message = f"File variable not found for selector: {list(self.selector)}"
            raise NodeError(message, _ERROR, inputs=inputs)
        files = [item for item in value if item] if isinstance(value, list) else [value]
        if not value or not files:
            documents = [] if isinstance(value, list) else [value]
            return Result(
                inputs=inputs, process_data={"documents": documents}, outputs={"text": []}
            )
        if not all(isinstance(file, File) for file in files):
            message = f"Variable {list(self.selector)} is not an ArrayFileSegment"
            raise NodeError(message, _ERROR, inputs=inputs)
        process_data = {"documents": files}
        try:
            texts = [await _text_of(file, run) for file in files]
        except ServiceFailed as error:
            raise NodeError(
                error.message, error.type, inputs=inputs, process_data=process_data
            ) from error
        text = texts if isinstance(value, list) else texts[0]
        return Result(inputs=inputs, process_data=process_data, outputs={"text": text})


async def _text_of(file: File, run: NodeRun) -> str:
    services = run.run.services
    content = await services.files.read(file, _MOST_BYTES)
    return await services.documents.text_of(content, _name(file), file.mime_type)


def _name(file: File) -> str:
    """With the extension that is known of it, which says what it is."""
    name, extension = file.name or "", file.extension or ""
    return name if name.lower().endswith(extension.lower()) else name + extension
