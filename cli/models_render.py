"""models render: a model's folders for a Triton that this stack does not run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.names import ModelNameArgument
from cli.output import AsJson, print_json
from stack.errors import StackError


class Target(StrEnum):
    """The hardware that the server computes on."""

    CPU = "cpu"
    GPU = "gpu"


class Provider(StrEnum):
    """ONNX Runtime's execution providers for a GPU."""

    TENSORRT = "tensorrt"
    CUDA = "cuda"


class Precision(StrEnum):
    """Precision within the network; embeddings are always FP32."""

    FP16 = "fp16"
    FP32 = "fp32"


def register(group: typer.Typer) -> None:
    """Register this command."""
    group.command()(render)


def render(
    name: ModelNameArgument,
    to: Annotated[
        Path, typer.Option("--to", help="Folder of the model repository.", file_okay=False)
    ],
    target: Annotated[
        Target, typer.Option("--target", help="Hardware; gpu uses Triton's native backend.")
    ],
    provider: Annotated[
        Provider,
        typer.Option(
            "--provider",
            help="Execution provider on a GPU; TensorRT needs NVIDIA's container image.",
        ),
    ] = Provider.TENSORRT,
    precision: Annotated[
        Precision | None,
        typer.Option("--precision", help="By default fp16 with TensorRT, else fp32."),
    ] = None,
    instances: Annotated[
        int, typer.Option("--instances", help="Number of instances of each encoder.")
    ] = 1,
    engine_cache: Annotated[
        str | None,
        typer.Option("--engine-cache", help="Folder on the server for TensorRT's engines."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a model's folders for a Triton elsewhere; set TRITON_URL to use that one."""
    from adapters.naming import image_model, text_model
    from stack.settings import StackSettings
    from stack.triton_models import model_registry

    source = model_registry(StackSettings()).store().repository(name)
    # Once there is such a model, because ONNX takes long to import.
    from models import repository as model_repository
    from models.gpu import ENGINE_CACHE, NotNative, render_gpu, single_row

    try:
        row_by_row = target is Target.GPU and single_row(source, name)
        if target is Target.CPU or (row_by_row and provider is Provider.CUDA):
            if precision is Precision.FP16:
                raise NotNative("fp16 needs --target gpu --provider tensorrt")
            if row_by_row and not as_json:
                print(f"{name} was exported for one row at a time, so the Python backend runs it")
            model_repository.render(
                source,
                to,
                python_env=None,
                image_instances=instances,
                text_instances=instances,
                threads=0,
                provider="cuda" if row_by_row else "cpu",
                names=[name],
            )
        else:
            usual = Precision.FP16 if provider is Provider.TENSORRT else Precision.FP32
            render_gpu(
                source,
                to,
                name,
                provider=provider.value,
                precision=(precision or usual).value,
                instances=instances,
                engine_cache=engine_cache or ENGINE_CACHE,
            )
    except (ValueError, OSError) as error:
        raise StackError(str(error)) from error
    if as_json:
        models = [image_model(name), text_model(name)]
        print_json({"name": name, "folder": str(to), "models": models})
        return
    print(
        f"{name} is in {to}; serve it with: tritonserver --model-repository={to} "
        f"--model-control-mode=explicit --load-model={image_model(name)} "
        f"--load-model={text_model(name)}"
    )
