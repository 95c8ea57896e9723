import type { Command } from 'commander'
import type { Runner } from '../run.ts'
export function addCompletion(_program: Command, _run: Runner): void {}
