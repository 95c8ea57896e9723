import { type RconServer, type RconServerOptions, serveRcon } from './rcon.ts'

/** What of a Minecraft server a backup sees: whether it saves, and the commands that turn this off and on. */
export interface Minecraft extends RconServer {
  /** Whether it saves by itself. */
  readonly saving: boolean
}

export const RCON_PASSWORD = 'creeper, aw man'

export interface MinecraftHabits extends Partial<Omit<RconServerOptions, 'run'>> {
  /** Writes the world out; `save-all flush` answers when it is done. */
  flush?(): Promise<void> | void
  /** Called when saving is turned off or on. */
  onSaving?(saving: boolean): void
  /** Answers a command instead; undefined leaves it to the server. */
  answer?(command: string): string | undefined
}

/** A server that answers as Minecraft 1.21 does. */
export async function serveMinecraft(habits: MinecraftHabits = {}): Promise<Minecraft> {
  let saving = true
  const turn = (to: boolean): boolean => {
    if (saving === to) return false
    saving = to
    habits.onSaving?.(to)
    return true
  }
  const server = await serveRcon({
    password: RCON_PASSWORD,
    ...habits,
    async run(command) {
      const other = habits.answer?.(command)
      if (other !== undefined) return other
      if (command === 'save-off')
        return turn(false) ? 'Automatic saving is now disabled' : 'Saving is already turned off'
      if (command === 'save-on') return turn(true) ? 'Automatic saving is now enabled' : 'Saving is already turned on'
      if (command === 'save-all flush') {
        await habits.flush?.()
        return 'Saving the game (this may take a moment!)Saved the game'
      }
      return 'Unknown or incomplete command, see below for error<--[HERE]'
    },
  })
  return Object.defineProperty(server as RconServer & { saving: boolean }, 'saving', { get: () => saving })
}
