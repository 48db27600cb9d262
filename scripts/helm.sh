#!/usr/bin/env bash
# Build Helm into build/tools, unless one is on PATH: bash scripts/helm.sh
# Needs Go, which fetches the compiler that Helm asks for. tests/test_helm.py is skipped without it.
set -euo pipefail
cd "$(dirname "$0")/.."
version=v3.17.4
command -v helm > /dev/null && exit 0
test -x build/tools/helm && exit 0
GOBIN="$PWD/build/tools" go install "helm.sh/helm/v3/cmd/helm@$version"
