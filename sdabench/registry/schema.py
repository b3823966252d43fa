"""What the files under ``registry/`` may say. Pydantic refuses everything else."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, field_validator, model_validator

Task = Literal["classification", "detection", "segmentation"]
DataTask = Literal["classification", "detection"]  # what a network is trained for
Counter = Literal["params", "trainable", "per_call", "macs", "fvcore", "total", "mmcv"]
Operation = Literal["conv", "conv_bias", "linear", "batch_norm", "relu", "pool"]
Kind = Literal["mislabelled", "copied", "other input size", "last digit", "fitted", "not reproduced"]
FourStages = Annotated[list[PositiveInt], Field(min_length=4, max_length=4)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Network(Strict):
    """How a network is built: the arguments of :class:`sdabench.models.skeleton.ResNet`.

    ``block``, ``stage``, ``stem`` and ``stem_pool`` name parts registered under ``sdabench/models/``.
    """

    block: str
    stage: str = "plain"
    depths: FourStages
    widths: FourStages = [64, 128, 256, 512]
    expansion: PositiveInt = 4
    strides: FourStages = [1, 2, 2, 2]
    stem: str = "plain"
    stem_pool: str | None = "max"
    depth_attention: bool | Annotated[list[bool], Field(min_length=4, max_length=4)] = False
    fc_init: Literal["default", "kaiming"] = "default"
    options: dict[str, Any] = {}  # the block's own

    @property
    def fused_stages(self) -> list[bool]:
        value = self.depth_attention
        return [value] * 4 if isinstance(value, bool) else value


class Model(Strict):
    """One named network. That of a detector is its ``backbone``; with ``masks`` it segments too.

    ``timm`` names the network of timm that equals it, tensor by tensor.
    """

    family: str
    task: DataTask
    title: str
    network: Network
    backbone: str | None = None
    masks: bool = False
    baseline: str | None = None
    like_for_like: str | None = None
    timm: str | None = None
    sources: list[str] = []
    note: str = ""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What it is measured by, each with a record of its own."""
        return (self.task, "segmentation") if self.masks else (self.task,)

    @property
    def depth_attention(self) -> bool:
        """Whether any stage is fused."""
        return any(self.network.fused_stages)

    def with_depth_attention(self, name: str) -> "Model":
        """The same network with depth attention on every stage; ``name`` is its own."""
        return self.model_copy(
            update={
                "title": f"SDA-{self.title}",
                "network": self.network.model_copy(update={"depth_attention": True}),
                "baseline": name,
                "like_for_like": name,
                "timm": None,
                "sources": [],
                "note": f"Not in the README: depth attention on {name}. {self.note}".rstrip(),
            }
        )


class Layout(Strict):
    """How the keys of an original release map to ours: regular expressions, applied in order."""

    source: str
    rename: dict[str, str]

    @field_validator("rename")
    @classmethod
    def patterns_compile(cls, rename: dict[str, str]) -> dict[str, str]:
        for pattern in rename:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is no regular expression: {error}") from None
        return rename


class Paper(Strict):
    """What to cite. Authors as BibTeX writes them, ``Surname, Given and Surname, Given``."""

    authors: Annotated[str, Field(min_length=1)]
    title: Annotated[str, Field(min_length=1)]
    booktitle: str | None = None
    journal: str | None = None
    venue: str  # as one says it: CVPR
    year: int
    doi: str | None = None

    @model_validator(mode="after")
    def published_once(self) -> "Paper":
        if (self.booktitle is None) == (self.journal is None):
            raise ValueError("a paper has either a booktitle or a journal")
        return self

    @property
    def _surnames(self) -> list[str]:
        return [author.partition(",")[0] for author in self.authors.split(" and ")]

    @property
    def reference(self) -> str:
        """In one line: who, what, where, when."""
        first, *others = self._surnames
        who = first if not others else f"{first} and {others[0]}" if len(others) == 1 else f"{first} et al."
        return f"{who}, {self.title}, {self.venue}{'' if ':' in self.venue else f' {self.year}'}"

    @property
    def bibtex(self) -> str:
        word = re.sub(r"[^a-z0-9]", "", self.title.replace("$^2$", "2").lower().split()[0])
        fields = self.model_dump(exclude={"venue", "authors"}, exclude_none=True)
        fields = {"author": self.authors} | fields | {"title": f"{{{self.title}}}"}
        kind = "article" if self.journal else "inproceedings"
        lines = [f"  {key} = {{{value}}}," for key, value in fields.items()]
        return "\n".join([f"@{kind}{{{self._surnames[0].lower()}{self.year}{word},", *lines, "}"])


class FamilyModel(Strict):
    """A model as its family's file writes it: what it does not say, the family says."""

    title: str
    network: dict[str, Any] = {}
    backbone: str | None = None
    baseline: str | None = None
    like_for_like: str | None = None
    timm: str | None = None
    sources: list[str] = []
    note: str = ""


class Family(Strict):
    """One file of ``registry/models``; the models of a family of detectors name a backbone each."""

    family: str
    task: DataTask = "classification"
    paper: Paper
    network: dict[str, Any] = {}  # what its models share
    masks: bool = False
    sources: list[str] = []  # of its models that name none
    differences: list[str] = []  # from the authors' own code, as far as they can change a result
    layouts: list[Layout] = []
    models: dict[str, FamilyModel]

    @model_validator(mode="after")
    def detectors_have_backbones(self) -> "Family":
        for name, model in self.models.items():
            if (model.backbone is None) == (self.task == "detection"):
                raise ValueError(f"models.{name}: a detector, and nothing else, has a backbone")
            if self.task == "detection" and (self.network or model.network):
                raise ValueError(f"models.{name}: a detector's network is that of its backbone")
        return self

    def resolve(self, name: str, others: Mapping[str, Model]) -> Model:
        """The model with its family's defaults filled in; a detector with its backbone, from ``others``."""
        entry = self.models[name]
        fields = entry.model_dump(exclude={"network"}) | {"sources": entry.sources or self.sources}
        if entry.backbone is not None:
            network = others[entry.backbone].network
        else:
            network = Network.model_validate(self.network | entry.network)
        return Model(family=self.family, task=self.task, masks=self.masks, network=network, **fields)


class Column(Strict):
    """A column of numbers: ``convention`` names the counter of a size or cost; accuracies have none."""

    key: str
    header: str
    decimals: Annotated[int, Field(ge=0, le=6)]
    unit: Literal["M", "G", "%"]
    convention: Counter | None = None

    @property
    def higher_is_better(self) -> bool:
        return self.convention is None


class Evidence(Strict):
    """A number that an explanation rests on, and how it is obtained.

    Either ``count`` names a counter, or ``terms`` weighs the operations to add up. ``model`` is the
    row's own unless said, ``input`` the usual one of its task, and ``without`` names modules that are
    left out; ``setting`` says in words what no counter here does (an old version of a counting tool).
    """

    value: int
    count: Counter | None = None
    terms: dict[Operation, int] | None = None
    model: str | None = None
    input: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None  # (C, H, W)
    without: list[str] = []
    setting: str | None = None

    @model_validator(mode="after")
    def one_way(self) -> "Evidence":
        if sum(way is not None for way in (self.count, self.terms, self.setting)) != 1:
            raise ValueError("evidence needs exactly one of count, terms and setting")
        if self.setting is not None and (self.input or self.without):
            raise ValueError("evidence of a setting says its input in words")
        return self


class Explanation(Strict):
    """Why a number is not what the table's own convention gives.

    Either it holds under another ``convention``, or its difference has a ``kind``. ``because`` may
    name pieces of ``evidence`` in braces, so that a test recomputes the numbers of the text.
    """

    convention: Counter | None = None
    kind: Kind | None = None
    because: str
    evidence: dict[str, Evidence] = {}
    source: str | None = None

    @model_validator(mode="after")
    def one_reading(self) -> "Explanation":
        if (self.convention is None) == (self.kind is None):
            raise ValueError("an explanation has either a convention or a kind")
        if self.kind is not None and not self.evidence:
            raise ValueError(f"'{self.kind}' needs evidence")
        assert self.text, "an explanation has words"  # refuses a brace that names no evidence
        return self

    @property
    def text(self) -> str:
        try:
            return self.because.format(**{name: f"{item.value:,}" for name, item in self.evidence.items()})
        except (LookupError, AttributeError, ValueError) as error:
            raise ValueError(f"'because' names {error} in braces, which is no evidence") from None


class RowEntry(Strict):
    """One row of a README table: ``reported`` follows the table's columns, null is a dash."""

    label: str
    dimension: str | None = None
    model: str
    reported: list[FiniteFloat | None]
    bold: list[str] = []
    claims: dict[str, Explanation] = {}
    claims_in: str | None = None  # the table that explains this model's numbers
    note: str = ""


class Group(Strict):
    name: str
    rows: Annotated[list[RowEntry], Field(min_length=1)]


class TableFile(Strict):
    """One README table."""

    table: str
    title: str
    task: Task
    source: str
    label_header: str
    dimension_header: str | None = None
    columns: list[Column]
    groups: Annotated[list[Group], Field(min_length=1)]

    @property
    def rows(self) -> list[RowEntry]:
        return [row for group in self.groups for row in group.rows]

    def numbers(self, row: RowEntry) -> dict[str, float | None]:
        """What a row prints, by column."""
        return {column.key: number for column, number in zip(self.columns, row.reported, strict=True)}

    @model_validator(mode="after")
    def rows_fit_columns(self) -> "TableFile":
        columns = {column.key: column for column in self.columns}
        for row in self.rows:
            if len(row.reported) != len(columns):
                raise ValueError(f"row '{row.label}': {len(row.reported)} numbers for {len(columns)} columns")
            for column, number in zip(self.columns, row.reported, strict=True):
                if number is not None and round(number, column.decimals) != number:
                    raise ValueError(
                        f"row '{row.label}', {column.key}: {number} has more than {column.decimals} decimals"
                    )
            for key in [*row.bold, *row.claims]:
                if key not in columns:
                    raise ValueError(f"row '{row.label}': no column '{key}'")
            for key, explanation in row.claims.items():
                if columns[key].convention is None:
                    raise ValueError(f"row '{row.label}', {key}: only size and cost are explained")
                if explanation.convention == columns[key].convention:
                    raise ValueError(f"row '{row.label}', {key}: that is the table's own convention")
        return self
