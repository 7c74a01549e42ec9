// A CNI runtime in one file: the reference library attaches, checks and detaches a container.
//
//	client CONFLIST PLUGINS CACHE add|check|del CONTAINER NETNS
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

func work(conf, plugins, cache, command, container, netns string) error {
	list, err := libcni.ConfListFromFile(conf)
	if err != nil {
		return err
	}
	cni := libcni.NewCNIConfigWithCacheDir([]string{plugins}, cache, nil)
	who := &libcni.RuntimeConf{ContainerID: container, NetNS: netns, IfName: "eth0"}
	switch command {
	case "add":
		var result types.Result
		if result, err = cni.AddNetworkList(context.Background(), list, who); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(result)
		}
		return err
	case "check":
		return cni.CheckNetworkList(context.Background(), list, who)
	case "del":
		return cni.DelNetworkList(context.Background(), list, who)
	}
	return fmt.Errorf("no command %q", command)
}

func main() {
	words := os.Args[1:]
	if err := work(words[0], words[1], words[2], words[3], words[4], words[5]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
