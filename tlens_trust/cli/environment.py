"""What `tlens-trust --version --verbose` prints: everything that a bug report needs to name."""

import platform


def describe_environment() -> dict[str, str]:
    """Describe the libraries and the machine that results would be computed with.

    Returns:
        Texts by name: versions of Python and of the libraries that a trace records, the platform,
        the backend that reads models by default, GPUs, and processor cores.
    """
    from tlens_trust.tracing.provenance import versions
    from tlens_trust.worker_pool import available_cores

    return {
        **versions(),
        "platform": platform.platform(),
        "backend": _default_backend(),
        "gpu": _graphics_processors(),
        "cores": str(available_cores()),
    }


def _default_backend() -> str:
    from tlens_trust.checkpoints.loading import has_hooked_transformer

    if has_hooked_transformer():
        return "hooked_transformer (bridge for architectures that it does not convert)"
    return "bridge"


def _graphics_processors() -> str:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return f"{', '.join(names)} (CUDA {torch.version.cuda or 'unknown'})"
    return "Apple (MPS)" if torch.backends.mps.is_available() else "none"
