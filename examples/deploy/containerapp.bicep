// A worker in Azure Container Apps: it signs in by a managed identity, and is scaled by the length of its queue.
//
//   az deployment group create --resource-group mygroup --template-file examples/deploy/containerapp.bicep \
//     --parameters environmentName=myenvironment accountName=myaccount image=myimage
//
// The environment and the storage account are there already. An image in a private registry takes
// `configuration.registries` with the identity below, and the role AcrPull for it.
//
// Properties and API version: https://learn.microsoft.com/azure/templates/microsoft.app/2025-01-01/containerapps

param location string = resourceGroup().location
param environmentName string
param accountName string
param image string
param queueName string = 'mail'

// Ids of built-in roles: https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/storage
var storageQueueDataContributor = '974c5e8b-45b9-4653-ba55-5f855dd0fb88'
var storageQueueDataMessageSender = 'c6a89b2d-59bc-44d0-9896-0f6e12d7b80a'

resource environment 'Microsoft.App/managedEnvironments@2025-01-01' existing = {
  name: environmentName
}

resource account 'Microsoft.Storage/storageAccounts@2023-05-01' existing = {
  name: accountName
}

resource queueService 'Microsoft.Storage/storageAccounts/queueServices@2023-05-01' existing = {
  parent: account
  name: 'default'
}

resource queue 'Microsoft.Storage/storageAccounts/queueServices/queues@2023-05-01' = {
  parent: queueService
  name: queueName
}

resource poisonQueue 'Microsoft.Storage/storageAccounts/queueServices/queues@2023-05-01' = {
  parent: queueService
  name: '${queueName}-poison'
}

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: 'worker'
  location: location
}

// To get, renew and delete messages of the one queue. It includes the right to count, which the scale rule needs.
resource works 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: queue
  name: guid(queue.id, identity.id, storageQueueDataContributor)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageQueueDataContributor)
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
  }
}

// To put what is given up into the other, and nothing else there.
resource givesUp 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: poisonQueue
  name: guid(poisonQueue.id, identity.id, storageQueueDataMessageSender)
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageQueueDataMessageSender)
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
  }
}

resource worker 'Microsoft.App/containerApps@2025-01-01' = {
  name: 'worker'
  location: location
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identity.id}': {}
    }
  }
  properties: {
    environmentId: environment.id
    configuration: {
      activeRevisionsMode: 'Single'
    }
    template: {
      // SIGTERM comes first, SIGKILL after so many seconds, 30 if nothing is said: the grace, 5 that the process itself
      // may need then, 5 to spare.
      terminationGracePeriodSeconds: 35
      containers: [
        {
          name: 'worker'
          image: image
          args: ['tasks']
          env: [
            { name: 'QWORKER_BROKER', value: 'azure://${account.name}' }
            { name: 'QWORKER_CONCURRENCY', value: '16' }
            { name: 'QWORKER_GRACE', value: '25s' }
            { name: 'QWORKER_LEASE', value: '60s' }
            // Which of the identities that an app may have: https://learn.microsoft.com/azure/container-apps/managed-identity
            { name: 'AZURE_CLIENT_ID', value: identity.properties.clientId }
          ]
          // https://learn.microsoft.com/azure/container-apps/health-probes; a probe may fail ten times at most here.
          probes: [
            { type: 'Startup', httpGet: { path: '/ready', port: 9000 }, periodSeconds: 12, failureThreshold: 10 }
            { type: 'Liveness', httpGet: { path: '/live', port: 9000 }, periodSeconds: 10, failureThreshold: 3 }
            { type: 'Readiness', httpGet: { path: '/ready', port: 9000 }, periodSeconds: 10 }
          ]
          resources: {
            cpu: json('0.25')
            memory: '0.5Gi'
          }
        }
      ]
      scale: {
        minReplicas: 0
        maxReplicas: 20
        pollingInterval: 15
        cooldownPeriod: 300
        rules: [
          {
            name: 'length'
            azureQueue: {
              accountName: account.name
              queueName: queue.name
              queueLength: 100
              identity: identity.id
            }
          }
        ]
      }
    }
  }
  dependsOn: [works, givesUp]
}
