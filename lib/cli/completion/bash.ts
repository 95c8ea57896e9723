import type { CompletedCommand, Values } from './model.ts'

/** What bash does for each kind of value. */
const COMPLETE: Record<Exclude<Values['kind'], 'words'>, string> = {
  nothing: 'return',
  file: '_millrace_paths -f; return',
  folder: '_millrace_paths -d; return',
  server: '_millrace_words "$(_millrace_names servers)"; return',
  destination: '_millrace_words "$(_millrace_names destinations)"; return',
  source: '_millrace_paths -f; _millrace_words "$(_millrace_names servers)"; return',
}

/** The script that completes the command in bash. */
export function bashScript(commands: readonly CompletedCommand[]): string {
  const inner = commands.filter(({ path }) => path.length > 0)
  return `# Completes millrace in bash: source this file, or keep it as
# ~/.local/share/bash-completion/completions/millrace
_millrace_words() {
  local IFS=$' \\t\\n'
  COMPREPLY+=($(compgen -W "$1" -- "$cur"))
}

_millrace_paths() {
  local IFS=$'\\n'
  compopt -o filenames 2>/dev/null
  COMPREPLY+=($(compgen "$1" -- "$cur"))
}

_millrace_names() {
  "\${COMP_WORDS[0]}" __complete "$1" \${config:+--config "$config"} 2>/dev/null
}

_millrace() {
  local cur prev command word config i
  COMPREPLY=()
  cur=\${COMP_WORDS[COMP_CWORD]}
  prev=\${COMP_WORDS[COMP_CWORD - 1]}
  # --option=value is three words here.
  [[ $cur == = ]] && cur=
  [[ $prev == = ]] && prev=\${COMP_WORDS[COMP_CWORD - 2]}
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [[ $word == -- ]]; then
      _millrace_paths -f
      return
    fi
    [[ $word == --config ]] && config=\${COMP_WORDS[i + 1]}
    case "$command $word" in
${inner.map(({ path }) => `      ${quote([path.slice(0, -1).join(' '), path.at(-1)].join(' '))}) command=${quote(path.join(' '))} ;;`).join('\n')}
    esac
  done
  case "$command:$prev" in
${commands.flatMap(valueCases).join('\n')}
  esac
  if [[ $cur == -* ]]; then
    case "$command" in
${commands.map((one) => `      ${quote(one.path.join(' '))}) _millrace_words ${quote(flagsOf(one).join(' '))} ;;`).join('\n')}
    esac
    return
  fi
  case "$command" in
${commands.map((one) => `    ${quote(one.path.join(' '))}) ${bareWords(one)} ;;`).join('\n')}
  esac
}

complete -F _millrace millrace
`
}

function valueCases({ path, options }: CompletedCommand): string[] {
  return options.flatMap(({ long, short, value }) => {
    if (!value) return []
    const names = [long, short].filter((name) => name !== undefined)
    return [`    ${names.map((name) => quote(`${path.join(' ')}:${name}`)).join(' | ')}) ${actionOf(value)} ;;`]
  })
}

function bareWords({ commands, arguments: given }: CompletedCommand): string {
  if (commands.length > 0) return `_millrace_words ${quote(commands.join(' '))}`
  // Which of them it is, is not counted: options with values stand between them.
  const actions = given.map(({ values }) => actionOf(values)).filter((action) => action !== 'return')
  return actions.map((action) => action.replace('; return', '')).join('; ') || 'return'
}

function actionOf(values: Values): string {
  return values.kind === 'words' ? `_millrace_words ${quote(values.words.join(' '))}; return` : COMPLETE[values.kind]
}

function flagsOf({ options }: CompletedCommand): string[] {
  return options.flatMap(({ long, short }) => [long, short].filter((name) => name !== undefined))
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}
