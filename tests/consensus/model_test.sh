#!/bin/bash
# The Spin models hold within their bounds, and each deliberate defect is found (consensus/model/check.sh).
set -eu
exec "$(dirname "$0")/../../consensus/model/check.sh" "${2:-quick}"
