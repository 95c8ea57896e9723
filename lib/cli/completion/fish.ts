import type { CompletedCommand, CompletedOption, Values } from './model.ts'

/** What fish does for each kind of value. */
const COMPLETE: Record<Exclude<Values['kind'], 'words'>, string> = {
  nothing: '-x',
  file: '-r -F',
  folder: "-x -a '(__fish_complete_directories (commandline -ct))'",
  server: "-x -a '(__millrace_names servers)'",
  destination: "-x -a '(__millrace_names destinations)'",
  source: "-r -F -a '(__millrace_names servers)'",
}

/** The script that completes the command in fish. */
export function fishScript(commands: readonly CompletedCommand[]): string {
  const paths = commands.filter(({ path }) => path.length > 0).map(({ path }) => quote(path.join(' ')))
  return `# Completes millrace in fish: keep this file as ~/.config/fish/completions/millrace.fish
function __millrace_command
  set -l known ${paths.join(' ')}
  set -l found
  for word in (commandline -opc)[2..-1]
    string match -q -- '-*' $word; and continue
    set -l next (string trim -- "$found $word")
    contains -- $next $known; or break
    set found $next
  end
  echo "$found"
end

function __millrace_at
  test (__millrace_command) = "$argv"
end

function __millrace_names
  set -l words (commandline -opc)
  set -l at (contains -i -- --config $words)
  and set -l config --config $words[(math $at + 1)]
  millrace __complete $argv $config 2>/dev/null
end

complete -c millrace -f
${commands.map((one) => linesOf(one, commands).join('\n')).join('\n')}
`
}

function linesOf(
  { path, options, commands, arguments: given }: CompletedCommand,
  all: readonly CompletedCommand[],
): string[] {
  const at = `complete -c millrace -n ${quote(`__millrace_at ${path.join(' ')}`.trim())}`
  return [
    ...commands.map((name) => {
      const one = all.find((other) => other.path.join(' ') === [...path, name].join(' '))
      return `${at} -a ${name} -d ${quote(one?.description ?? '')}`
    }),
    ...options.map((option) => `${at} ${optionOf(option)}`),
    ...given.flatMap(({ values }) => {
      const action = actionOf(values)
      // Files are completed where nothing says that they are not.
      return values.kind === 'nothing' ? [] : [`${at} ${action.replace(/^-[rx] /, '')}`]
    }),
  ]
}

function optionOf({ long, short, description, value }: CompletedOption): string {
  return [
    ...(short ? [`-s ${short.slice(1)}`] : []),
    ...(long ? [`-l ${long.slice(2)}`] : []),
    ...(value ? [actionOf(value)] : []),
    `-d ${quote(description)}`,
  ].join(' ')
}

function actionOf(values: Values): string {
  return values.kind === 'words' ? `-x -a ${quote(values.words.join(' '))}` : COMPLETE[values.kind]
}

function quote(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
}
