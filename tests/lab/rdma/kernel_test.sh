#!/usr/bin/env bash
# The kernel of the lab's guests is there, or can be built: about 7 minutes on two CPUs, the first time.
set -u
export PATH=${1:?build folder}/bin:$PATH
kernel=$(rackfish lab kernel) || exit
[[ -x $kernel && $(rackfish lab kernel) == "$kernel" ]] || exit 1
echo "$kernel"
