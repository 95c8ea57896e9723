import { printable } from '../cli/format.ts'

/** Text that is markup already, and is put in as it is. Nobody but `html` should need to make it of what is not constant. */
export class Markup {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

export type Content = Markup | string | number | readonly Content[] | false | null | undefined

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }

/** Text as it may stand in markup, in an element or a quoted attribute; control characters are shown, not obeyed. */
export function escapeText(text: string): string {
  return printable(text.toWellFormed()).replace(/[&<>"']/g, (char) => ENTITIES[char] as string)
}

/** Markup with values put in: everything is escaped but what `html` has made. false, null and undefined are nothing. */
export function html(strings: TemplateStringsArray, ...values: Content[]): Markup {
  let text = strings[0] as string
  for (const [index, value] of values.entries()) text += render(value) + strings[index + 1]
  return new Markup(text)
}

function render(value: Content): string {
  if (value === undefined || value === null || value === false) return ''
  if (value instanceof Markup) return value.text
  if (typeof value === 'string') return escapeText(value)
  if (typeof value === 'number') return String(value)
  return value.map(render).join('')
}
