import { testCrashes } from '../../support/crashes.ts'

testCrashes('Google Drive')
