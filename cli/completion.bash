# bash completion for rackfish: commands and their options, asked from the command itself.
_rackfish()
{
    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} command="" i skip=0
    for ((i = 1; i < COMP_CWORD; i++)); do
        if ((skip)); then skip=0; continue; fi
        case ${COMP_WORDS[i]} in
            -m|--machine|--via) skip=1 ;;
            -*) ;;
            *) command=${COMP_WORDS[i]}; break ;;
        esac
    done
    case $previous in
        -m|--machine)
            local base=/run/rackfish
            ((EUID)) && base=${XDG_RUNTIME_DIR:-/tmp}/rackfish
            mapfile -t COMPREPLY < <(compgen -W "$(ls "$base" 2>/dev/null)" -- "$word")
            return ;;
        --via|--node|-n)
            mapfile -t COMPREPLY < <(compgen -W "$(rackfish nodes 2>/dev/null | awk 'NR > 1 { print $2 }')" -- "$word")
            return ;;
        --core|-c)
            mapfile -t COMPREPLY < <(compgen -W "$(rackfish cores 2>/dev/null | awk 'NR > 1 { print $1 }')" -- "$word")
            return ;;
        --config|-f|--output|-o)
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            return ;;
        --transport)
            mapfile -t COMPREPLY < <(compgen -W "tcp rdma dpdk" -- "$word")
            return ;;
        --one-sided|--leases|--encrypt)
            mapfile -t COMPREPLY < <(compgen -W "on off" -- "$word")
            return ;;
        --plan)
            mapfile -t COMPREPLY < <(compgen -W "host broadcast unicast package weighted" -- "$word")
            return ;;
        --device)
            mapfile -t COMPREPLY < <(compgen -W "rxe siw both none" -- "$word")
            return ;;
        --ports)
            mapfile -t COMPREPLY < <(compgen -W "1 2" -- "$word")
            return ;;
        --kernel)
            mapfile -t COMPREPLY < <(compgen -W "uml stock" -- "$word")
            return ;;
        --driver)
            mapfile -t COMPREPLY < <(compgen -W "af_packet af_xdp" -- "$word")
            return ;;
        --chdir)
            mapfile -t COMPREPLY < <(compgen -d -- "$word")
            return ;;
    esac
    if [[ -z $command || $command == help ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(rackfish help 2>/dev/null |
            awk '/^Commands:/ { on = 1; next } /^$/ { on = 0 } on { print $1 }')" -- "$word")
    elif [[ $command == lab && $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(rackfish lab --help 2>/dev/null | grep -o -- '--[a-z-]*')" -- "$word")
    elif [[ $command == lab && $previous == lab ]]; then
        mapfile -t COMPREPLY < <(compgen -W "rdma dpdk exec machine status wire cut heal kill boot freeze thaw down kernel" -- "$word")
    elif [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(rackfish help "$command" 2>/dev/null | grep -o -- '--[a-z-]*')" -- "$word")
    elif [[ $command == kill || $command == wait ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(rackfish ps 2>/dev/null | awk 'NR > 1 { print $1 }')" -- "$word")
    elif [[ $command == run ]]; then
        mapfile -t COMPREPLY < <(compgen -c -- "$word")
    fi
}
complete -o default -F _rackfish rackfish
