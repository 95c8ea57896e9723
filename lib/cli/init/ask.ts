import {
  confirm as askConfirm,
  password as askHidden,
  select as askSelect,
  text as askText,
  autocomplete,
  isCancel,
  log,
  note,
} from '@clack/prompts'
import { printable } from '../format.ts'
import { pathChoices } from './paths.ts'

/** Thrown where somebody stops at a question, by Ctrl-C or Escape. */
export class Cancelled extends Error {
  override readonly name = 'Cancelled'
}

/** What is wrong with an answer; undefined when it will do. */
export type Validate = (answer: string) => string | undefined | Promise<string | undefined>

export interface Choice<T> {
  value: T
  label: string
  hint?: string
}

/** How questions are put. Each rejects with Cancelled. Answers are trimmed, but for hidden ones. */
export interface Asker {
  /** @param initial stands there already, to be changed. */
  text(message: string, options?: { initial?: string | undefined; validate?: Validate }): Promise<string>
  /** Nothing of the answer is shown. */
  hidden(message: string, validate?: Validate): Promise<string>
  /** A path that is there, with completion. A whole path behind `initial` takes its place. */
  path(message: string, options: { initial: string; validate: Validate }): Promise<string>
  choose<T>(message: string, choices: readonly Choice<T>[], initial?: T): Promise<T>
  confirm(message: string, initial: boolean): Promise<boolean>
  /** Says something. What comes from a disk or a store is to be made printable by the caller. */
  say(kind: 'info' | 'good' | 'warn' | 'bad' | 'step', text: string): void
  /** Shows something in a box. */
  box(title: string, text: string): void
}

const TELL = {
  info: log.info,
  good: log.success,
  warn: log.warn,
  bad: log.error,
  /** One of several lines. */
  step: (text: string) => log.message(text, { spacing: 0 }),
}

/** Puts questions at the terminal. */
export function terminalAsker(signal: AbortSignal): Asker {
  const answerOf = <T>(answer: T): Exclude<T, symbol> => {
    if (isCancel(answer)) throw new Cancelled()
    return answer as Exclude<T, symbol>
  }
  return {
    async text(message, { initial, validate } = {}) {
      const answer = await askText({
        message,
        signal,
        ...(initial === undefined ? {} : { initialValue: initial }),
        validate: (value) => validate?.((value ?? '').trim()),
      })
      return answerOf(answer ?? '').trim()
    },
    async hidden(message, validate) {
      return answerOf(await askHidden({ message, signal, clearOnError: true, validate: (v) => validate?.(v ?? '') }))
    },
    async path(message, { initial, validate }) {
      let typed: string | undefined
      const answer = await autocomplete<string>({
        message,
        signal,
        initialUserInput: initial,
        maxItems: 6,
        completeOnTab: true,
        filter: () => true,
        options() {
          // What was chosen before stays chosen while it is in the list, though something else is typed by now.
          if (this.userInput !== typed) {
            typed = this.userInput
            this.focusedValue = undefined
          }
          return pathChoices(this.userInput, initial).map((value) => ({ value, label: printable(value) }))
        },
        validate: (value) => validate(typeof value === 'string' ? value : ''),
      })
      return answerOf(answer)
    },
    async choose(message, choices, initial) {
      const options = choices as readonly { value: string; label: string; hint?: string }[]
      const answer = await askSelect<string>({
        message,
        signal,
        maxItems: 12,
        options: [...options],
        ...(initial === undefined ? {} : { initialValue: initial as string }),
      })
      return answerOf(answer) as (typeof choices)[number]['value']
    },
    confirm: async (message, initial) => answerOf(await askConfirm({ message, signal, initialValue: initial })),
    say: (kind, text) => TELL[kind](text),
    box: (title, text) => note(text, title, { format: (line) => line }),
  }
}

/** An answer that may not be empty. */
export function needed(what: string): Validate {
  return (answer) => (answer === '' ? `${what} is needed.` : undefined)
}
