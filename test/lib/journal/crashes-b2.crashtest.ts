import { testCrashes } from '../../support/crashes.ts'

testCrashes('Backblaze B2')
