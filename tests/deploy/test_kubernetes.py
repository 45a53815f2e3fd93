"""The Kubernetes manifest, held against the published schemas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

MANIFEST = Path(__file__).parents[2] / "deploy/kubernetes/netfs-sidecar.yaml"
VERSIONS = ["1.29", "1.31", "1.34"]


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(MANIFEST.read_text()))


@pytest.mark.parametrize("version", VERSIONS)
def test_manifest_fits_the_schema_of(version: str) -> None:
    for document in documents():
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_refuse_a_misspelt_field(version: str) -> None:
    pod = next(d for d in documents() if d["kind"] == "Pod")
    pod["spec"]["initContainers"][0]["restartPolcy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, version, strict=True)


def test_the_sidecar_is_a_native_one_with_probes_secrets_and_propagation() -> None:
    pod = next(d for d in documents() if d["kind"] == "Pod")
    sidecar = pod["spec"]["initContainers"][0]
    assert sidecar["restartPolicy"] == "Always"
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= sidecar.keys()
    shared = {m["mountPath"]: m.get("mountPropagation") for m in sidecar["volumeMounts"]}
    assert shared["/vol"] == "Bidirectional"
    assert "/run/secrets/netfs" in shared
    app = pod["spec"]["containers"][0]
    assert app["volumeMounts"][0]["mountPropagation"] == "HostToContainer"
    assert "securityContext" not in app
