import type { RecoverySheet, SheetPart } from './recovery-sheet.ts'

export type SheetFormat = 'html' | 'md' | 'txt'

const RULE = '_'.repeat(60)

/** A recovery sheet as a text: a self-contained page to print, Markdown, or plain. */
export function sheetText({ title, parts }: RecoverySheet, format: SheetFormat): string {
  if (format === 'html') return htmlPage(title, parts)
  const head = format === 'md' ? `# ${title}` : `${title}\n${'='.repeat(title.length)}`
  const write = format === 'md' ? markdownOf : plainOf
  return `${[head, ...parts.map(write)].join('\n\n')}\n`
}

function markdownOf(part: SheetPart): string {
  switch (part.kind) {
    case 'heading':
      return `## ${part.text}`
    case 'text':
      return part.text
    case 'facts':
      return part.rows.map(([name, value]) => `- ${name}: ${code(value)}`).join('\n')
    case 'blank':
      return `${part.label}: ${RULE}`
    case 'commands':
      return ['```sh', ...part.lines, '```'].join('\n')
  }
}

/** As much of a fence as it takes: what it holds may have backticks. */
function code(value: string): string {
  const longest = Math.max(0, ...[...value.matchAll(/`+/g)].map(([ticks]) => ticks.length))
  const fence = '`'.repeat(longest + 1)
  const space = value.startsWith('`') || value.endsWith('`') ? ' ' : ''
  return `${fence}${space}${value}${space}${fence}`
}

function plainOf(part: SheetPart): string {
  switch (part.kind) {
    case 'heading':
      return `${part.text}\n${'-'.repeat(part.text.length)}`
    case 'text':
      return part.text.replaceAll('`', '')
    case 'facts': {
      const width = Math.max(...part.rows.map(([name]) => name.length))
      return part.rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n')
    }
    case 'blank':
      return `${part.label}:\n\n${RULE}`
    case 'commands':
      return part.lines.map((line) => `  ${line}`).join('\n')
  }
}

const CSS = `
@page { size: A4; margin: 12mm }
body { font: 10.5pt/1.4 system-ui, sans-serif; max-width: 48em; margin: 2em auto; padding: 0 1em; color: #000; background: #fff }
h1 { font-size: 16pt; margin: 0 0 .4em } h2 { font-size: 11.5pt; margin: 1em 0 .3em; break-after: avoid }
p { margin: .4em 0 } table { border-collapse: collapse } td { padding: .1em 1.2em .1em 0; vertical-align: top }
td:first-child { white-space: nowrap }
td + td, pre, code { font-family: ui-monospace, monospace; font-size: 9pt; overflow-wrap: anywhere }
pre { white-space: pre-wrap; border: 1px solid #999; padding: .5em .7em; margin: .4em 0; break-inside: avoid }
pre div { padding-left: 2em; text-indent: -2em }
.blank { display: flex; gap: .8em; margin: .9em 0 } .blank i { flex: 1; border-bottom: 1px solid #000 }
@media print { body { margin: 0; padding: 0; max-width: none; font-size: 9.5pt } .blank { margin: .7em 0 } }
`

function htmlPage(title: string, parts: readonly SheetPart[]): string {
  const body = parts.map(htmlOf).join('\n')
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${escaped(title)}</title>
<style>${CSS}</style>
<h1>${escaped(title)}</h1>
${body}
</html>
`
}

function htmlOf(part: SheetPart): string {
  switch (part.kind) {
    case 'heading':
      return `<h2>${escaped(part.text)}</h2>`
    case 'text':
      return `<p>${escaped(part.text).replace(/`([^`]+)`/g, '<code>$1</code>')}</p>`
    case 'facts':
      return `<table>${part.rows.map(([name, value]) => `<tr><td>${escaped(name)}<td>${escaped(value)}`).join('')}</table>`
    case 'blank':
      return `<div class="blank">${escaped(part.label)}: <i></i></div>`
    case 'commands':
      return `<pre>${part.lines.map((line) => `<div>${escaped(line)}</div>`).join('')}</pre>`
  }
}

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (char) => ENTITIES[char] as string)
}
