import { raceAll } from '../support/backup-race.ts'

raceAll(50)
