"""ViViT for transformers: Auto classes, `Trainer` and `pipeline`, for every variant.

Importing this module registers the model, so that `AutoModelForVideoClassification` and `pipeline` read the folders
that `ViViT.save_pretrained` writes; no code from a folder runs (`trust_remote_code` stays off). What they save is read
by `ViViT.from_pretrained`: both classes have the same names of parameters.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForVideoClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from vivit_zoo.config import ViViTConfig
from vivit_zoo.encoders import Encoder
from vivit_zoo.model import ViViT
from vivit_zoo.positions import Computed

__all__ = ["ViViTForVideoClassification", "VivitZooConfig"]

FIELDS: dict[str, Any] = dataclasses.asdict(ViViTConfig())


class VivitZooConfig(PretrainedConfig):
    """The fields of `ViViTConfig` and transformers' own, in one config.json.

    The number of classes is transformers' `num_labels`, their names are its `id2label`; `problem_type` is kept too.

    Args:
        **values: fields of either; `class_names` as in `ViViT`.

    Raises:
        ValueError: on fields that `ViViTConfig` refuses, and for several heads, which `Trainer` and `pipeline` do not
            know.
    """

    model_type = "vivit_zoo"
    attribute_map: ClassVar = {"hidden_size": "dim", "num_hidden_layers": "depth", "num_attention_heads": "num_heads"}

    def __init__(self, **values: Any) -> None:
        ours = FIELDS | {name: values.pop(name) for name in FIELDS if name in values}
        count, names = ours.pop("num_classes"), values.pop("class_names", None)
        if isinstance(count, Mapping):
            raise ValueError(
                f"the model has several heads ({', '.join(count)}), and transformers' classifiers have one; load it "
                "with ViViT.from_pretrained, or give it one head first: model.reset_classifier(number)"
            )
        if values.get("id2label") is None and values.get("num_labels") is None:
            labels = names or [f"LABEL_{i}" for i in range(count)]
            values |= {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
        for name, value in dataclasses.asdict(ViViTConfig(**ours)).items():
            if name != "num_classes":
                setattr(self, name, value)
        super().__init__(**values)

    def to_vivit(self) -> ViViTConfig:
        """The configuration of the same model as a `ViViTConfig`."""
        fields = {name: getattr(self, name) for name in FIELDS if name != "num_classes"}
        return ViViTConfig(**fields, num_classes=len(self.id2label or {}))

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(c, T, H, W) of one clip."""
        return self.to_vivit().input_shape

    def to_dict(self) -> dict[str, Any]:
        """What config.json holds; `ViViT.from_pretrained` reads it too."""
        names = [name for _, name in sorted((self.id2label or {}).items())]
        unnamed = names == [f"LABEL_{i}" for i in range(len(names))]
        return super().to_dict() | {"num_classes": len(names), "class_names": None if unnamed else names}


class ViViTForVideoClassification(PreTrainedModel):
    """`ViViT` as a model of transformers: `pixel_values` (b, t, c, h, w) -> `logits` (b, num_labels).

    It holds the modules of a `ViViT` under the same names. Note transformers' order of the axes of a video.

    Args:
        config: of the model.

    Raises:
        ValueError: if the model has no classes: pass `num_labels=...`.
    """

    config_class = VivitZooConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True  # of its own: every strategy of `vivit_zoo.attention` goes through it
    _no_split_modules = ["Block", "FactorisedBlock"]  # noqa: RUF012 (as transformers declares it)

    def __init__(self, config: VivitZooConfig) -> None:
        super().__init__(config)
        if not config.id2label:
            raise ValueError("the model has no classes; give it some: from_pretrained(..., num_labels=10)")
        model = ViViT(config.to_vivit())
        for name, module in model.named_children():
            self.add_module(name, module)
        self.is_built_on_meta = any(parameter.is_meta for parameter in self.parameters())
        self.post_init()

    @classmethod
    def from_vivit(cls, model: ViViT) -> "ViViTForVideoClassification":
        """Wrap a model in memory; the two share their modules.

        Raises:
            ValueError: if it has several heads, or none.
        """
        values = dataclasses.asdict(model.config)
        values |= {"class_names": model.class_names, "problem_type": model.problem_type}
        values |= {"positions_filter": model.positions_filter, "processing": None}  # read by `ViViT.from_pretrained`
        if model.processing is not None:
            values["processing"] = dataclasses.asdict(model.processing)
        wrapped = cls(VivitZooConfig(**values))
        for name, module in model.named_children():
            wrapped.add_module(name, module)
        return wrapped

    # The methods need no more of a model than the modules and `config.input_shape`.
    forward_features: Any = ViViT.forward_features
    forward_head: Any = ViViT.forward_head
    _check_video: Any = ViViT._check_video

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **options: Any) -> Any:
        """An `ImageClassifierOutput` with the logits, and with the loss if there are labels.

        Args:
            pixel_values: (b, t, c, h, w), in [-1, 1] for the released checkpoints.
            labels: class numbers (b,); for the `problem_type` "multi_label_classification" (b, num_labels) of 0 and 1,
                for "regression" (b, num_labels), all floating-point.
            **options: transformers' own; `return_dict=False` gives a tuple.
        """
        as_dict = options.pop("return_dict", None)
        logits = self.forward_head(self.forward_features(pixel_values.transpose(1, 2)))
        loss = None if labels is None else self.loss_function(labels, logits, self.config, **options)
        output = ImageClassifierOutput(loss=loss, logits=logits)
        return output.to_tuple() if as_dict is False else output

    def _init_weights(self, module: nn.Module) -> None:
        """Fill what `from_pretrained` did not find: constants that no checkpoint holds, and a new head."""
        if isinstance(module, Computed):
            module.refresh()
        if not self.is_built_on_meta:  # the modules have initialised themselves
            return
        missing = [
            name
            for name, parameter in module.named_parameters(recurse=False)
            if not getattr(parameter, "_is_hf_initialized", False)
        ]
        if module is self.head and isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif missing:
            (place,) = [name for name, one in self.named_modules() if one is module]
            raise ValueError(f"the checkpoint has no {place}.{missing[0]}, or one of another shape")

    def _set_gradient_checkpointing(self, enable: bool = True, *_: Any, every_n_layers: int = 1, **__: Any) -> None:
        """Called by transformers, for `Trainer`'s option among others."""
        if every_n_layers != 1:
            raise ValueError(f"every_n_layers {every_n_layers} is not possible here: each block is checkpointed")
        for module in self.modules():
            if isinstance(module, Encoder):
                module.grad_checkpointing = enable
        self.gradient_checkpointing = enable  # what transformers asks for the state


AutoConfig.register("vivit_zoo", VivitZooConfig)
AutoModelForVideoClassification.register(VivitZooConfig, ViViTForVideoClassification)
