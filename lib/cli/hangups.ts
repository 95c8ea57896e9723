/** SIGHUPs that a command has taken for itself. */
export interface Hangups {
  /** Calls back for each from now on, and at once for those that came before. */
  listen(onHangup: () => void): void
  /** Leaves them to those that had them before. */
  giveBack(): void
}

/** In a daemon, SIGHUP asks for the config to be read again, whatever it means to other commands. */
export function takeHangups(): Hangups {
  let hasCome = false
  let tell = () => {
    hasCome = true
  }
  const onSignal = () => tell()
  const others = process.listeners('SIGHUP')
  process.removeAllListeners('SIGHUP').on('SIGHUP', onSignal)
  return {
    listen: (onHangup) => {
      tell = onHangup
      if (hasCome) onHangup()
      hasCome = false
    },
    giveBack: () => {
      process.off('SIGHUP', onSignal)
      for (const one of others) process.on('SIGHUP', one)
    },
  }
}
