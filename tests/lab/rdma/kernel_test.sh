#!/usr/bin/env bash
# The kernel of the lab's guests is there, or can be built: about 7 minutes on two CPUs, the first time.
set -u
export PATH=${1:?build folder}/bin:$PATH
kernel=$(rackfish lab kernel) || exit
[[ -x $kernel && $(rackfish lab kernel) == "$kernel" ]] || exit 1
echo "$kernel"
# Debian's own kernel is a folder, and no process of this host. The other one has its configuration in it.
[[ -d $kernel ]] && exit
at=$(grep -abom 1 IKCFG_ST "$kernel" | cut -d: -f1)
configuration=$(tail -c "+$((at + 9))" "$kernel" | gzip -dc 2>/dev/null)
if ! grep -q '^CONFIG_RDMA_SIW=y' <<<"$configuration"; then
    echo "its configuration cannot be read"
    exit 1
fi
if grep '^CONFIG_VMAP_STACK=y' <<<"$configuration" || ! grep -q '^CONFIG_HZ_PERIODIC=y' <<<"$configuration"; then
    echo "guests would fall silent now and then: see kernel.config"
    exit 1
fi
