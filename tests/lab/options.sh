# The command line of a lab's bench: the build folder, options, and the pieces to measure. The script has set what an option is by default,
# in a variable of its name, and says what there is:
#
#   declare -A takes=([rounds]='[1-9][0-9]*' [device]='rxe|siw' [json]='')   # a pattern of its values; none: it is a switch
#   all=(rate bulk)                                                          # the pieces; no such array: it takes none
#   bench_options "$@"                                                       # sets folder, the options' variables, pieces
#
# shellcheck shell=bash
# shellcheck disable=SC2154 # set by the script
bench_refuse() { echo "${0##*/}: $1" >&2 && exit 2; }

bench_options() {
    local option what
    # shellcheck disable=SC2034 # read by the script
    folder=${1:?build folder}
    pieces=()
    shift
    while (($#)); do
        option=${1#--}
        if [[ $1 != --* ]]; then
            [[ " ${all[*]-} " == *" $1 "* ]] || bench_refuse "there is no piece $1; there are: ${all[*]-none}"
            pieces+=("$1")
        elif [[ ! -v takes[$option] ]]; then
            bench_refuse "unknown option $1; there are:$(printf ' --%s' "${!takes[@]}")"
        elif [[ -z ${takes[$option]} ]]; then
            printf -v "$option" 1
        else
            what=${takes[$option]}
            [[ ${2-} =~ ^($what)$ ]] || bench_refuse "$1 takes ${what/#'[1-9][0-9]*'/a number from 1}, not '${2-}'"
            printf -v "$option" %s "$2"
            shift
        fi
        shift
    done
    ((${#pieces[@]})) || pieces=("${all[@]-}")
}
