import { testCrashes } from '../../support/crashes.ts'

testCrashes('Dropbox')
