"""Schema of the files under ``registry/``."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from sdabench.hashing import sha256_of_lines
from sdabench.tex import Tex

Task = Literal["classification", "detection", "segmentation"]
DataTask = Literal["classification", "detection"]  # task of a dataset and of training
Quantity = Literal["params", "flops"]
Counter = Literal["params", "trainable", "per_call", "macs", "fvcore", "total", "mmcv"]
Operation = Literal["conv", "conv_bias", "linear", "batch_norm", "relu", "pool", "weight_product", "product"]
Kind = Literal[
    "mislabelled", "copied", "other input size", "binary unit", "last digit", "fitted", "not reproduced"
]  # fmt: skip


def _plain_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name, re.ASCII):
        raise ValueError(f"the name '{name}' must consist of letters, digits, '_', '.', '+' and '-'")
    return name


_APS = ("ap_pct", "ap50_pct", "ap75_pct", "ap_s_pct", "ap_m_pct", "ap_l_pct")
METRICS: dict[Task, tuple[str, ...]] = {  # what tables print in percent
    "classification": ("top1_pct", "top5_pct"),
    "detection": _APS,
    "segmentation": _APS,
}
TexText = Annotated[str, AfterValidator(Tex)]
Name = Annotated[str, AfterValidator(_plain_name)]  # of what files and folders are named after
Place = tuple[str, tuple[int, ...] | None, tuple[str, ...]]  # model, input, modules left out
FourStages = Annotated[list[PositiveInt], Field(min_length=4, max_length=4)]


class Strict(BaseModel):
    """Immutable model without extra fields and without infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DepthAttention(Strict):
    """Depth attention of a stage: what the weights of its blocks come from.

    ``learned`` is the paper's: from the image, through a bottleneck of ``max(C / 16, min_hidden)`` channels.
    The controls do not depend on the image: ``static`` weights are learned, ``uniform`` ones are 1/n, and
    ``random`` ones are drawn once and not trained.
    """

    kind: Literal["learned", "static", "uniform", "random"] = "learned"
    min_hidden: PositiveInt = 64

    @model_validator(mode="after")
    def learned_has_hidden(self) -> "DepthAttention":
        if self.kind != "learned" and self.min_hidden != 64:
            raise ValueError(f"{self.kind} depth attention has no hidden channels; omit min_hidden")
        return self


def _form(value: object) -> str | None:
    forms = {bool: "bool", list: "stages", tuple: "stages", dict: "mapping", DepthAttention: "mapping"}
    return forms.get(type(value))


StageAttention = Annotated[
    Annotated[bool, Tag("bool")] | Annotated[DepthAttention, Tag("mapping")],
    Discriminator(
        _form,
        custom_error_type="form",
        custom_error_message="expected true, false or a mapping with kind and min_hidden",
    ),
]
NetworkAttention = Annotated[
    Annotated[bool, Tag("bool")]
    | Annotated[DepthAttention, Tag("mapping")]
    | Annotated[list[StageAttention], Field(min_length=4, max_length=4), Tag("stages")],
    Discriminator(
        _form,
        custom_error_type="form",
        custom_error_message="expected true, false, a mapping with kind and min_hidden, or a list of four",
    ),
]


class Network(Strict):
    """Architecture of a classification model: the arguments of :class:`sdabench.models.skeleton.ResNet`.

    ``block``, ``stage``, ``stem`` and ``stem_pool`` name components registered under ``sdabench/models/``.
    ``head_norm`` states whether a batch norm precedes the classifier; by default, with depth attention.
    """

    block: str
    stage: str = "plain"
    depths: FourStages
    widths: FourStages = [64, 128, 256, 512]
    expansion: PositiveInt = 4
    strides: FourStages = [1, 2, 2, 2]
    stem: str = "plain"
    stem_pool: str | None = "max"
    stem_width: PositiveInt = 64
    depth_attention: NetworkAttention = False
    head_norm: bool | None = None
    fc_init: Literal["default", "kaiming"] = "default"
    options: dict[str, Any] = {}  # keyword arguments of the block

    @field_validator("depth_attention")
    @classmethod
    def one_form(
        cls, value: bool | DepthAttention | list[bool | DepthAttention]
    ) -> bool | DepthAttention | list[bool | DepthAttention]:
        """Return the shortest of the forms that mean the same, so that they have one digest."""
        if not isinstance(value, list):
            return True if value == DepthAttention() else value
        stages = [True if each == DepthAttention() else each for each in value]
        return stages[0] if all(each == stages[0] for each in stages) else stages

    @property
    def stage_attention(self) -> list[DepthAttention | None]:
        """Depth attention of each stage, None for stages without."""
        value = self.depth_attention
        stages = value if isinstance(value, list) else [value] * 4
        return [DepthAttention() if each is True else each or None for each in stages]


class ModelEntry(Strict):
    """The entry of one model in the file of its family.

    ``baseline`` is the model that the paper compares it with, ``like_for_like`` the same network without
    depth attention. ``timm`` names timm's model with the same tensors.
    """

    title: TexText
    backbone: str | None = None
    baseline: str | None = None
    like_for_like: str | None = None
    timm: str | None = None
    sources: list[str] = []
    note: str = ""


class FamilyModel(ModelEntry):
    network: dict[str, Any] = {}  # changes to the network of its family


class NamedModel(ModelEntry):
    """One named model, of the registry or by source. A detector with ``masks`` also segments."""

    family: str
    task: DataTask
    masks: bool = False
    plugin: str | None = None  # which declares it

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that the model is evaluated on, each with its own record."""
        return (self.task, "segmentation") if self.masks else (self.task,)

    @property
    def network_sha256(self) -> str:
        """The digest of the definition of the network."""
        raise NotImplementedError

    @property
    def depth_attention(self) -> bool:
        """Whether any stage has depth attention."""
        return False


class Model(NamedModel):
    """A model of the registry. A detector has the network of its ``backbone``.

    ``code`` has the digest of the code of each plugin whose components the network has, by plugin.
    """

    network: Network
    code: dict[str, str] = {}

    @property
    def network_sha256(self) -> str:
        """The digest of the architecture as the registry defines it, without titles and sources.

        It covers the code of plugins, but not that of sdabench.
        """
        defined = self.model_dump(mode="json", include={"task", "masks", "network"}, exclude_defaults=True)
        return sha256_of_lines([json.dumps(defined, sort_keys=True), *sorted(self.code.values())])

    @property
    def depth_attention(self) -> bool:
        return any(self.network.stage_attention)

    def with_depth_attention(self, name: str) -> "Model":
        """Return this model, called ``name``, with depth attention on every stage."""
        new = "Derived" if self.plugin else "Not in the paper"
        return self.model_copy(
            update={
                "title": Tex(f"SDA-{self.title}"),
                "network": self.network.model_copy(update={"depth_attention": True}),
                "baseline": name,
                "like_for_like": name,
                "timm": None,
                "sources": [],
                "note": f"{new}: depth attention on {name}. {self.note}".rstrip(),
            }
        )


class Layout(Strict):
    """Regular expressions that map the keys of a release to sdabench's, applied in order."""

    source: str
    rename: dict[str, str]

    @field_validator("rename")
    @classmethod
    def patterns_compile(cls, rename: dict[str, str]) -> dict[str, str]:
        for pattern in rename:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is not a regular expression: {error}") from None
        return rename


class Paper(Strict):
    """A paper to cite; ``authors`` in BibTeX's form, ``Surname, Given and Surname, Given``."""

    authors: Annotated[str, Field(min_length=1)]
    title: Annotated[str, Field(min_length=1)]
    booktitle: str | None = None
    journal: str | None = None
    venue: str  # short name, e.g. CVPR
    year: int
    doi: str | None = None

    @model_validator(mode="after")
    def published_once(self) -> "Paper":
        if (self.booktitle is None) == (self.journal is None):
            raise ValueError("a paper has either a booktitle or a journal")
        return self

    @property
    def _surnames(self) -> list[str]:
        return [author.partition(",")[0].strip("{}") for author in self.authors.split(" and ")]

    @property
    def reference(self) -> Tex:
        """Authors, title, venue and year in one line."""
        first, *others = self._surnames
        who = first if not others else f"{first} and {others[0]}" if len(others) == 1 else f"{first} et al."
        return Tex(f"{who}, {self.title}, {self.venue}{'' if ':' in self.venue else f' {self.year}'}")

    @property
    def bibtex(self) -> str:
        word = re.sub(r"[^a-z0-9]", "", self.title.replace("$^2$", "2").lower().split()[0])
        fields = self.model_dump(exclude={"venue", "authors"}, exclude_none=True)
        fields = {"author": self.authors} | fields | {"title": f"{{{self.title}}}"}
        kind = "article" if self.journal else "inproceedings"
        lines = [f"  {key} = {{{value}}}," for key, value in fields.items()]
        author = self._surnames[0].lower().replace(" ", "")
        return "\n".join([f"@{kind}{{{author}{self.year}{word},", *lines, "}"])


class Family(Strict):
    """One file of ``registry/models``; each model of a family of detectors names its backbone.

    ``derive`` adds ``sda_NAME`` for each model of a family of classifiers.
    """

    family: Name
    task: DataTask = "classification"
    paper: Paper | None = None
    network: dict[str, Any] = {}  # defaults of its models
    masks: bool = False
    derive: bool = True
    sources: list[str] = []  # default of its models
    differences: list[str] = []  # from the authors' code, where they can change a result
    layouts: list[Layout] = []
    models: dict[Name, FamilyModel]

    @model_validator(mode="after")
    def detectors_have_backbones(self) -> "Family":
        for name, model in self.models.items():
            if (model.backbone is None) == (self.task == "detection"):
                raise ValueError(f"models.{name}: detectors need a backbone, other models must not have one")
            if self.task == "detection" and (self.network or model.network):
                raise ValueError(f"models.{name}: a detector has the network of its backbone, not its own")
        return self

    def resolve(self, name: str, networks: Mapping[str, Network]) -> Model:
        """Return the model with the defaults of its family; ``networks`` are those of backbones."""
        entry = self.models[name]
        fields = entry.model_dump(exclude={"network"}) | {"sources": entry.sources or self.sources}
        if entry.backbone is not None:
            network = networks[entry.backbone]
        else:
            network = Network.model_validate(self.network | entry.network)
        return Model(family=self.family, task=self.task, masks=self.masks, network=network, **fields)


class Column(Strict):
    """A column of numbers. ``convention`` names the counter of parameters or FLOPs; None for accuracies."""

    key: str
    header: TexText
    decimals: Annotated[int, Field(ge=0, le=6)]
    unit: Literal["M", "G", "%"]
    convention: Counter | None = None

    @property
    def higher_is_better(self) -> bool:
        return self.convention is None

    @property
    def quantity(self) -> Quantity | None:
        """What is counted; None for accuracies."""
        if self.convention is None:
            return None
        return "params" if self.convention in ("params", "trainable", "per_call") else "flops"


class Evidence(Strict):
    """A number that supports an explanation, and how to obtain it.

    Exactly one of three fields is set: ``count`` names a counter; ``terms`` are the weights of operations in
    a sum; ``setting`` describes a method without a counter in sdabench, such as an old counting tool.
    With ``binary``, the number is printed in units of 2^20 for M, or 2^30 for G.
    """

    value: int
    count: Counter | None = None
    terms: dict[Operation, int] | None = None
    model: str | None = None  # by default that of the row
    input: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None  # (C, H, W), by default its task's
    without: list[str] = []  # modules that are not counted
    setting: str | None = None
    binary: bool = False

    @model_validator(mode="after")
    def one_way(self) -> "Evidence":
        if sum(way is not None for way in (self.count, self.terms, self.setting)) != 1:
            raise ValueError("evidence needs exactly one of count, terms and setting")
        if self.setting is not None and (self.input or self.without):
            raise ValueError("evidence with a setting describes input and modules in the setting itself")
        return self

    @property
    def elsewhere(self) -> bool:
        """Whether it counts something else than the whole model of the row at its task's input size."""
        return bool(self.model or self.input or self.without)

    def place(self, model: str) -> Place:
        """Return what is counted, in a row of ``model``."""
        return self.model or model, self.input, tuple(self.without)


class Explanation(Strict):
    """The reason why a claim differs from the measured count under the convention of its column.

    Either the claim holds under another ``convention``, or the difference has a ``kind``. ``because`` may
    refer to ``evidence`` in braces; a test recomputes these numbers.
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
        if self.kind == "binary unit" and self.source is None:
            raise ValueError("'binary unit' needs a source; a unit found by searching is 'fitted'")
        if self.kind == "other input size" and self.source is None:
            raise ValueError("'other input size' needs a source; a size found by searching is 'fitted'")
        assert self.text, "an explanation needs a text"  # rejects braces without evidence
        return self

    @property
    def text(self) -> str:
        try:
            return self.because.format(**{name: f"{item.value:,}" for name, item in self.evidence.items()})
        except (LookupError, AttributeError, ValueError) as error:
            raise ValueError(f"'because' refers to {error}, which is not in the evidence") from None


class RowEntry(Strict):
    """One row of a table: ``reported`` has one number per column, null for a dash."""

    label: TexText
    dimension: TexText | None = None
    model: str
    reported: list[FiniteFloat | None]
    bold: list[str] = []
    claims: dict[str, Explanation] = {}
    claims_in: str | None = None  # the table that explains the same numbers
    note: TexText = Tex()


class Group(Strict):
    name: str
    rows: Annotated[list[RowEntry], Field(min_length=1)]


class TableFile(Strict):
    """One file of ``registry/tables``; the tables of a ``suite`` are ordered by their ``position``.

    ``paper`` is that which printed the table, by default that of the registry or plugin.
    """

    table: Name
    title: TexText
    task: Task
    suite: Name
    position: int = 0
    paper: Paper | None = None
    source: TexText
    label_header: TexText
    dimension_header: TexText | None = None
    columns: list[Column]
    groups: Annotated[list[Group], Field(min_length=1)]

    @property
    def rows(self) -> list[RowEntry]:
        return [row for group in self.groups for row in group.rows]

    def numbers(self, row: RowEntry) -> dict[str, float | None]:
        return {column.key: number for column, number in zip(self.columns, row.reported, strict=True)}

    @model_validator(mode="after")
    def rows_fit_columns(self) -> "TableFile":
        columns = {column.key: column for column in self.columns}
        for column in self.columns:
            if column.convention == "fvcore" and self.task != "classification":
                raise ValueError(f"column '{column.key}': fvcore does not count detectors; use mmcv")
            if column.convention is None and (column.unit != "%" or column.key not in METRICS[self.task]):
                raise ValueError(
                    f"column '{column.key}': sizes and costs need a convention, accuracies the unit % and "
                    f"a key of {', '.join(METRICS[self.task])}"
                )
            if column.convention is not None and column.unit == "%":
                raise ValueError(f"column '{column.key}': the unit of a count is M or G")
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
