import type { CompletedCommand, CompletedOption, Values } from './model.ts'

/** What zsh does for each kind of value. */
const COMPLETE: Record<Exclude<Values['kind'], 'words'>, string> = {
  nothing: ' ',
  file: '_files',
  folder: '_files -/',
  server: '_millrace_servers',
  destination: '_millrace_destinations',
  source: '_millrace_sources',
}

/** The script that completes the command in zsh. */
export function zshScript(commands: readonly CompletedCommand[]): string {
  return `#compdef millrace
# Completes millrace in zsh: keep this file as _millrace in a folder of $fpath, or source it after compinit.
_millrace_names() {
  local -a names
  names=(\${(f)"$(millrace __complete $1 \${opt_args[--config]:+--config \${(Q)opt_args[--config]}} 2>/dev/null)"})
  compadd -a names
}
_millrace_servers() { _millrace_names servers }
_millrace_destinations() { _millrace_names destinations }
_millrace_sources() { _millrace_servers; _files }

${[...commands].reverse().map(functionOf(commands)).join('\n\n')}

if [[ $funcstack[1] == _millrace ]]; then
  _millrace "$@"
else
  compdef _millrace millrace
fi
`
}

function functionOf(all: readonly CompletedCommand[]) {
  return (command: CompletedCommand): string => {
    const { path, options, commands, arguments: given } = command
    const specs = options.map(optionSpec)
    if (commands.length === 0) {
      const args = given.map(({ name, repeats, values }) =>
        quote(`${repeats ? '*' : ''}:${escapeSpec(name)}:${actionOf(values)}`),
      )
      return `${nameOf(path)}() {
  _arguments -s \\
${[...specs, ...args].map((spec) => `    ${spec}`).join(' \\\n')}
}`
    }
    const described = commands.map((name) => {
      const one = all.find((other) => other.path.join(' ') === [...path, name].join(' '))
      return `    ${quote(`${name}:${escapeSpec(one?.description ?? '')}`)}`
    })
    return `${nameOf(path)}() {
  local context state state_descr line
  typeset -A opt_args
  local -a commands
  commands=(
${described.join('\n')}
  )
  _arguments -s -C \\
${[...specs, "'1: :->command'", "'*:: :->rest'"].map((spec) => `    ${spec}`).join(' \\\n')}
  case $state in
    command) _describe command commands ;;
    rest)
      case $words[1] in
${commands.map((name) => `        ${name}) ${nameOf([...path, name])} ;;`).join('\n')}
      esac
      ;;
  esac
}`
  }
}

function nameOf(path: readonly string[]): string {
  return ['_millrace', ...path].join('_').replaceAll('-', '_')
}

function optionSpec({ long, short, description, value }: CompletedOption): string {
  const names = [short, long].filter((name) => name !== undefined)
  const rest = `[${escapeSpec(description)}]${value ? `:${escapeSpec(names.at(-1) as string)}:${actionOf(value)}` : ''}`
  // What may be given again is not told from the help: each may.
  if (names.length === 1) return quote(`*${names[0]}${rest}`)
  return `'*'{${names.join(',')}}${quote(rest)}`
}

function actionOf(values: Values): string {
  return values.kind === 'words' ? `(${values.words.join(' ')})` : COMPLETE[values.kind]
}

function escapeSpec(text: string): string {
  return text.replace(/[\\[\]:]/g, '\\$&')
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}
